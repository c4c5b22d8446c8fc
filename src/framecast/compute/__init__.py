"""What a model is computed with: device, threads, precision, layout, compiled steps and graphs of kernels."""
