# Sources of ui/panels.
