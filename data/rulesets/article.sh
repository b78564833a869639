#!/bin/sh
# iptables commands that shell articles on Docker's networks show, in the order in which they work on empty tables.

# Docker's chains in the filter table, as Docker 18.05 to 27 sets them up
iptables -N DOCKER
iptables -N DOCKER-ISOLATION-STAGE-1
iptables -N DOCKER-ISOLATION-STAGE-2
iptables -N DOCKER-USER
iptables -A FORWARD -j DOCKER-USER
iptables -A FORWARD -j DOCKER-ISOLATION-STAGE-1
iptables -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A FORWARD -o docker0 -j DOCKER
iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
iptables -A FORWARD -i docker0 -o docker0 -j ACCEPT
iptables -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
iptables -A DOCKER-ISOLATION-STAGE-1 -j RETURN
iptables -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
iptables -A DOCKER-ISOLATION-STAGE-2 -j RETURN
iptables -A DOCKER-USER -j RETURN

# Refuse ping, open port 9501, forbid the host external web servers
iptables -A INPUT -p icmp -j REJECT
iptables -I INPUT -p tcp --dport 9501 -j ACCEPT
iptables -I INPUT -p udp --dport 9501 -j ACCEPT
iptables -A OUTPUT -p tcp --dport 80 -j REJECT

# Who may reach containers: one address, a network, a range
iptables -A DOCKER-USER -i docker0 ! -s 192.168.1.1 -j DROP
iptables -A DOCKER-USER -i docker0 ! -s 192.168.1.0/24 -j DROP
iptables -A DOCKER-USER -m iprange -i docker0 ! --src-range 192.168.1.1-192.168.1.3 -j DROP

# Containers of one network reach other hosts
iptables -t nat -A POSTROUTING -s 172.18.0.0/16 -j MASQUERADE

# Look at the result
iptables -vnL
iptables -L
