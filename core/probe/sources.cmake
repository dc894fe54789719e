# Sources and libraries of core/probe.
