# Sources and libraries of core/metrics.
