"""The commands of ``rapidin``, a file each; what results look like is in `views`."""
