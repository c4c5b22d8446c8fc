"""Sources: frames by number, whatever they come from: indexed, opened per process, regridded, cached."""
