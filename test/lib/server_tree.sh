#!/usr/bin/env bash
# server_tree.sh BUILD_DIR TREE: makes a private server tree (see common.sh) and prints its bin folder.
set -euo pipefail
# shellcheck source=test/lib/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
pgxc_server_tree "${1?build folder, or an empty string for a server without the module}" "${2:?folder of the tree}"
