"""The commands of ``rapidin``, each in its own file; `views` says what their results look like."""
