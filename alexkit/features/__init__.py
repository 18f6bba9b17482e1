"""Network layers into HDF5 files."""
