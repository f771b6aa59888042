// Reads a configuration of Envoy, as JSON, and says what Envoy's own schema and its rules have against it.
package main

import (
	"fmt"
	"io"
	"os"

	bootstrap "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// check looks into every message, those that are packed into an Any too.
func check(message proto.Message) {
	if packed, is := message.(*anypb.Any); is {
		inner, err := packed.UnmarshalNew()
		if err != nil {
			fail(err)
		}
		check(inner)
		return
	}
	if ruled, is := message.(interface{ ValidateAll() error }); is {
		if err := ruled.ValidateAll(); err != nil {
			fail(err)
		}
	}
	message.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsMap() || field.Message() == nil:
		case field.IsList():
			for place := range value.List().Len() {
				check(value.List().Get(place).Message().Interface())
			}
		default:
			check(value.Message().Interface())
		}
		return true
	})
}

func main() {
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		fail(err)
	}
	configuration := new(bootstrap.Bootstrap)
	if err := protojson.Unmarshal(text, configuration); err != nil {
		fail(err)
	}
	check(configuration)
}
