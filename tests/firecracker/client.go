// SPDX-License-Identifier: Apache-2.0

// Starts, pauses and resumes a VM over its API socket by Go's own HTTP client: client SOCKET KERNEL.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
)

var client http.Client

func do(method, path string, body io.Reader, expect bool) (int, string) {
	request, err := http.NewRequest(method, "http://localhost"+path, body)
	if err != nil {
		panic(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if expect {
		request.Header.Set("Expect", "100-continue")
	}
	answer, err := client.Do(request)
	if err != nil {
		panic(fmt.Sprint(method, " ", path, ": ", err))
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		panic(fmt.Sprint(method, " ", path, ": ", err))
	}
	return answer.StatusCode, string(text)
}

func must(method, path, body string) {
	if status, text := do(method, path, strings.NewReader(body), false); status != 204 {
		panic(fmt.Sprint(method, " ", path, ": ", status, " ", text))
	}
}

func state() string {
	var instance struct{ State string }
	status, text := do("GET", "/", nil, false)
	if err := json.Unmarshal([]byte(text), &instance); err != nil || status != 200 {
		panic(fmt.Sprint(status, " ", text))
	}
	return instance.State
}

// One whose size is not known goes in chunks.
type unsized struct{ io.Reader }

func main() {
	socket, kernel := os.Args[1], os.Args[2]
	client.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}
	must("PUT", "/machine-config", `{"vcpu_count": 1, "mem_size_mib": 64}`)
	for _, expect := range []bool{false, true} {
		body := unsized{strings.NewReader(`{"mem_size_mib": 128}`)}
		if status, text := do("PATCH", "/machine-config", body, expect); status != 204 {
			panic(fmt.Sprint("in chunks: ", status, " ", text))
		}
	}
	must("PUT", "/boot-source", fmt.Sprintf(`{"kernel_image_path": %q}`, kernel))
	for path, expected := range map[string]int{"/nothing": 400, "/machine-config": 200} {
		if status, _ := do("GET", path, nil, false); status != expected {
			panic(fmt.Sprint(path, ": ", status))
		}
	}
	if status, text := do("HEAD", "/machine-config", nil, false); status != 400 || text != "" {
		panic(fmt.Sprint("HEAD: ", status, " ", text))
	}
	must("PUT", "/actions", `{"action_type": "InstanceStart"}`)
	var all sync.WaitGroup
	for i := 0; i < 8; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for n := 0; n < 200; n++ {
				if is := state(); is != "Running" {
					panic(is)
				}
			}
		}()
	}
	all.Wait()
	must("PATCH", "/vm", `{"state": "Paused"}`)
	fmt.Println(state())
	must("PATCH", "/vm", `{"state": "Resumed"}`)
	fmt.Println(state())
}
