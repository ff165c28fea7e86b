// A service for large bodies: `GET /bytes/N` answers N bytes, `POST /upload` answers how many came and their CRC-32.
// What it does costs little beside carrying the bytes, so that what carries them is what is measured.
package main

import (
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
)

func main() {
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(i)
	}
	http.HandleFunc("/bytes/", func(w http.ResponseWriter, r *http.Request) {
		left, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/bytes/"))
		if err != nil || left < 0 {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(left))
		for left > 0 {
			part := block
			if left < len(part) {
				part = part[:left]
			}
			sent, err := w.Write(part)
			if err != nil {
				return
			}
			left -= sent
		}
	})
	http.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		sum := crc32.NewIEEE()
		got, err := io.CopyBuffer(sum, r.Body, make([]byte, 1<<18))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, "%d %08x\n", got, sum.Sum32())
	})
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "here") })
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}
