"""nerfstudio methods: one file a method, registration in `register`."""
