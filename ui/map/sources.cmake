# Sources of ui/map.
