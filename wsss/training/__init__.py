"""Training of the classifier and of the segmentation network."""
