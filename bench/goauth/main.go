// A bare answer to nginx `auth_request`: yes, to everybody.
package main

import (
	"log"
	"net/http"
	"os"
)

func main() {
	yes := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	log.Fatal(http.ListenAndServe(os.Args[1], yes))
}
