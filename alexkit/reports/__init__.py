"""Results as rows, plots and pages."""
