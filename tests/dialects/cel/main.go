// Evaluates expressions with Kubernetes' CEL: one a line on standard input; prints one JSON object for each.
package main

import (
	"bytes"
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types/ref"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apiserver/pkg/cel/environment"
)

type answer struct {
	Expression string          `json:"expression"`
	Result     json.RawMessage `json:"result,omitempty"`
	Error      string          `json:"error,omitempty"`
}

func main() {
	text, err := os.ReadFile(os.Args[1])
	check(err)
	var context map[string]any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	check(decoder.Decode(&context))
	variables := []cel.EnvOption{}
	for name := range context {
		variables = append(variables, cel.Variable(name, cel.MapType(cel.StringType, cel.DynType)))
	}
	set, err := environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()).Extend(
		environment.VersionedOptions{IntroducedVersion: version.MajorMinor(1, 0), EnvOptions: variables})
	check(err)
	env := set.StoredExpressionsEnv()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		line := lines.Text()
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		said, _ := json.Marshal(evaluate(env, line, integers(context).(map[string]any)))
		fmt.Println(string(said))
	}
}

// Whole numbers are integers, as the product has them.
func integers(value any) any {
	switch value := value.(type) {
	case json.Number:
		if whole, err := value.Int64(); err == nil {
			return whole
		}
		number, _ := value.Float64()
		return number
	case map[string]any:
		for key, inner := range value {
			value[key] = integers(inner)
		}
	case []any:
		for place, inner := range value {
			value[place] = integers(inner)
		}
	}
	return value
}

func evaluate(env *cel.Env, expression string, context map[string]any) answer {
	ast, issues := env.Compile(expression)
	if issues != nil && issues.Err() != nil {
		return answer{Expression: expression, Error: issues.Errors()[0].Message}
	}
	program, err := env.Program(ast)
	if err != nil {
		return answer{Expression: expression, Error: err.Error()}
	}
	value, _, err := program.Eval(context)
	if err != nil {
		return answer{Expression: expression, Error: err.Error()}
	}
	return answer{Expression: expression, Result: written(value)}
}

func written(value ref.Val) json.RawMessage {
	native, err := value.ConvertToNative(reflect.TypeOf(&structpb.Value{}))
	if err == nil {
		if text, err := protojson.Marshal(native.(*structpb.Value)); err == nil {
			return text
		}
	}
	name := value.Type().TypeName()
	switch value := value.Value().(type) {
	case float64:
		// JSON has no such number.
		name = strings.NewReplacer("+Inf", "Infinity", "-Inf", "-Infinity").Replace(fmt.Sprint(value))
	case string:
		name = value
	}
	text, _ := json.Marshal(name)
	return text
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
