"""The processes of a run: who they are, how they agree, and how they are started."""
