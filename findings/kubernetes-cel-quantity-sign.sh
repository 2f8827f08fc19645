#!/usr/bin/env bash
# k8s.io/apiserver 0.36.3: the CEL function `sign` of a quantity is documented as a method and exists as a global function only.
#
# Expected: the comment of the library's source, which the Kubernetes documentation repeats, lists `<Quantity>.sign() <int>`, between
# `asInteger()` and `isGreaterThan()`, which are methods. So `quantity('1').sign()` should be 1.
# Seen: the method does not compile; `sign(quantity('1'))` does. A validation rule that follows the documentation is rejected when
# the CustomResourceDefinition is created.
#
# Output seen:
#   quantity('1').sign() == 1: found no matching overload for 'sign' applied to 'kubernetes.Quantity.()'
#   sign(quantity('1')) == 1: true <nil>
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cat >go.mod <<'MOD'
module finding

go 1.26

require (
	k8s.io/apiserver v0.36.3
)
MOD
cat >main.go <<'GO'
package main

import (
	"fmt"
	"strings"

	"github.com/google/cel-go/cel"
	"k8s.io/apiserver/pkg/cel/library"
)

func main() {
	env, err := cel.NewEnv(library.Quantity())
	if err != nil {
		panic(err)
	}
	for _, expression := range []string{"quantity('1').sign() == 1", "sign(quantity('1')) == 1"} {
		ast, issues := env.Compile(expression)
		if issues.Err() != nil {
			fmt.Printf("%s: %s\n", expression, strings.Split(issues.Errors()[0].Message, "\n")[0])
			continue
		}
		program, err := env.Program(ast)
		if err != nil {
			panic(err)
		}
		value, _, err := program.Eval(map[string]any{})
		fmt.Printf("%s: %v %v\n", expression, value, err)
	}
}
GO
go mod tidy >/dev/null 2>&1 || true
go mod edit -require k8s.io/apiserver@v0.36.3
out=$(GOFLAGS=-mod=mod go run .)
echo "$out"
grep -q "^quantity('1').sign() == 1: found no matching overload" <<<"$out" || {
  echo "CHANGED: the method compiles"
  exit 1
}
grep -q "^sign(quantity('1')) == 1: true" <<<"$out" || {
  echo "CHANGED: the global function is gone"
  exit 1
}
echo "as described: sign is a global function only"
