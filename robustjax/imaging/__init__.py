"""Image operations that augmentations and corruptions share: filters, colour spaces, resampling.

Images are float (b, h, w, c); what each function asks of their range it says itself.
"""

from robustjax.imaging.color import hsv_to_rgb, luma, rgb_to_hsv
from robustjax.imaging.filters import correlate, cut_gaussian_taps, gaussian_matrix, gaussian_taps, smooth
from robustjax.imaging.motion import streak, streak_table, streak_taps
from robustjax.imaging.noise_fields import plasma, plasma_draws
from robustjax.imaging.resample import batch_first, batch_last, box_weights, clipped_zoom, separable, zoom_planes, zoom_points

__all__ = [
    "batch_first",
    "batch_last",
    "box_weights",
    "clipped_zoom",
    "correlate",
    "cut_gaussian_taps",
    "gaussian_matrix",
    "gaussian_taps",
    "hsv_to_rgb",
    "luma",
    "plasma",
    "plasma_draws",
    "rgb_to_hsv",
    "separable",
    "smooth",
    "streak",
    "streak_table",
    "streak_taps",
    "zoom_planes",
    "zoom_points",
]
