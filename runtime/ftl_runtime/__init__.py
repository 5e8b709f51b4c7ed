"""The in-container half: trains. Started as a process, imported by nobody."""
