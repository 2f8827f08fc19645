set -eu
. /etc/os-release
echo "os=$ID $VERSION_ID"
echo "processors=$(nproc)"
