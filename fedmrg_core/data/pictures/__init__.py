"""Pictures with classes or masks: what a frozen vision model is taught to tell or to outline."""
