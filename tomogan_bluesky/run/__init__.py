"""One raw run, from its documents to the derived run that it becomes."""
