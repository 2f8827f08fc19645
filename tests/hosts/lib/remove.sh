#!/usr/bin/env bash
# Removes a directory once its standard input has come to an end. Processes that are just being ended may still write
# there, hence the repetition.
#
# usage: remove.sh DIRECTORY
trap '' HUP INT TERM
read -r _
for ((i = 0; i < 100; i++)); do
  rm -rf --one-file-system "$1" && break
  sleep 0.1
done
