# Sources and libraries of core/model.
