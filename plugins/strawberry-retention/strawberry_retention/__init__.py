"""Two historic forms of the Retention Mechanism, as a plugin. Both leak."""
