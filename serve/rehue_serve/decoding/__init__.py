"""Read image files that need more than Pillow: TIFF, deep pictures, profiles, other formats."""
