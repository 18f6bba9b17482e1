"""alexkit: transfer learning and feature extraction with AlexNet."""

__version__ = "0.1.0"
