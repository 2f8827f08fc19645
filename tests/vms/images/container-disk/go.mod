module container-disk

go 1.26
