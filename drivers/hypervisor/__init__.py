"""The hypervisor: libvirt for real guests, `simulated` for scale and fault tests."""
