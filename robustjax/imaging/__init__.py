"""Image operations that augmentations and corruptions share: filters, colour spaces, resampling.

Images are float (b, h, w, c); what each function asks of their range it says itself.
"""

from robustjax.imaging.color import hsv_to_rgb, rgb_to_hsv
from robustjax.imaging.filters import correlate, gaussian_matrix, gaussian_taps
from robustjax.imaging.noise_fields import plasma, plasma_draws
from robustjax.imaging.resample import box_weights, separable

__all__ = [
    "box_weights",
    "correlate",
    "gaussian_matrix",
    "gaussian_taps",
    "hsv_to_rgb",
    "plasma",
    "plasma_draws",
    "rgb_to_hsv",
    "separable",
]
