"""The network on a host: `local` (Linux bridge, dnsmasq, nftables), or `simulated`."""
