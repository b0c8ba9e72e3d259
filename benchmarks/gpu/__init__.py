"""The benchmark on a GPU: what is trained, by whom, and what is to be reached."""
