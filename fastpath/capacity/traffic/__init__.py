"""Who talks to whom on a host, how often and for how long: profiles, and the packets and rates that follow."""
