"""CT images: headers, the choice of a series, its slices in space, and its voxels."""
