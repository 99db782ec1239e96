"""See: frames, resizing, decoding, results, and the judgement of image quality. NumPy and OpenCV only."""
