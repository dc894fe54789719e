# Sources of ui/shell.
