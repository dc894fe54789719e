# Sources and libraries of core/masks.
