# Sources and libraries of core/export.
