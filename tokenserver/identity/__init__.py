"""People: who they are and how they prove it. What they may do lives in `access`."""
