# Sources and libraries of core/plan.
