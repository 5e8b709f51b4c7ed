"""The keys that no field of a section takes as they are: converted, refused or ignored, each with its reason."""
