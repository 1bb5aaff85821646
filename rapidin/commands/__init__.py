"""The commands of ``rapidin``, each in its own file; `views` draws their results."""
