"""The four tasks' models; one folder a task, and none imports another."""
