"""Where runs are processed: on a thread, or in a process that can't harm the scan."""
