"""How good forecasts are: errors, skill against the baselines, calibration of intervals. NumPy in, NumPy out."""
