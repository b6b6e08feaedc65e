"""One owner's study in one library or another: the owner, and who trains, each a process."""
