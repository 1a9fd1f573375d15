"""Image operations that augmentations and corruptions share.

Filters, colour spaces, resampling, warps, streaks of motion, plasma fractals, pictures of ice; and, as modules, what computes as
other libraries do: `jpeg` (libjpeg-turbo), `edges` (OpenCV), `canny` (scikit-image), `pil` (Pillow).

Images are float (b, h, w, c); what each function asks of their range it says itself.
"""

from robustjax.imaging import canny, edges, jpeg, pil
from robustjax.imaging.color import hsv_to_rgb, luma, rgb_to_hsv, room_for_square
from robustjax.imaging.filters import correlate, cut_gaussian_taps, gaussian_matrix, gaussian_taps, smooth
from robustjax.imaging.ice import ice_pictures
from robustjax.imaging.motion import streak, streak_table, streak_taps
from robustjax.imaging.noise_fields import plasma, plasma_draws
from robustjax.imaging.resample import batch_first, batch_last, box_weights, clipped_zoom, separable, zoom_planes, zoom_points
from robustjax.imaging.warp import bilinear, bilinear_between

__all__ = [
    "batch_first",
    "batch_last",
    "bilinear",
    "bilinear_between",
    "box_weights",
    "canny",
    "clipped_zoom",
    "correlate",
    "cut_gaussian_taps",
    "edges",
    "gaussian_matrix",
    "gaussian_taps",
    "hsv_to_rgb",
    "ice_pictures",
    "jpeg",
    "luma",
    "pil",
    "plasma",
    "plasma_draws",
    "rgb_to_hsv",
    "room_for_square",
    "separable",
    "smooth",
    "streak",
    "streak_table",
    "streak_taps",
    "zoom_planes",
    "zoom_points",
]
