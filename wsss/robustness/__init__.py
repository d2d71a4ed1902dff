"""What survives perturbations of images: tags, class maps and masks."""
