module pallet.dev/tests/cluster/idle

go 1.26.0
